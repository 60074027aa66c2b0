"""Data: from a folder of images and label maps to tensors, with every file checked on the way."""

from crispseg.data.classes import ClassSet, default_palette, read_classes, write_classes
from crispseg.data.dataset import Item, SegmentationDataset, read_pair
from crispseg.data.images import image_size, read_image
from crispseg.data.importing import Report, import_data
from crispseg.data.labels import convert_colours, encode_label, full_palette, read_label, write_label
from crispseg.data.layouts import LAYOUTS, find_samples
from crispseg.data.samples import Sample
from crispseg.data.transforms import RandomScaledCrop, resize_image, resize_label, train_transform

__all__ = [
    "LAYOUTS",
    "ClassSet",
    "Item",
    "RandomScaledCrop",
    "Report",
    "Sample",
    "SegmentationDataset",
    "convert_colours",
    "default_palette",
    "encode_label",
    "find_samples",
    "full_palette",
    "image_size",
    "import_data",
    "read_classes",
    "read_image",
    "read_label",
    "read_pair",
    "resize_image",
    "resize_label",
    "train_transform",
    "write_classes",
    "write_label",
]
