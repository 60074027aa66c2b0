"""Predictions by many processes, on one machine or a cluster, through Ray: ``pip install "crispseg[ray]"``."""

from crispseg.distributed.cluster import Workers
from crispseg.distributed.dataset import predict_dataset

__all__ = ["Workers", "predict_dataset"]
