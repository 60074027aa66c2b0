"""A server for an exported file (or a run): a picture in, a mask out. LitServe does the serving.

pip install crispseg onnxruntime litserve python-multipart
crispseg export --run runs/mine --out model.onnx
python examples/serve_litserve.py model.onnx --port 8000
curl --fail --form request=@photo.jpg --output mask.png http://127.0.0.1:8000/predict
"""

import argparse
import io
from typing import Any

import litserve
import numpy as np
from fastapi import HTTPException, Response, UploadFile
from PIL import Image, ImageOps

import crispseg
from crispseg.errors import CrispsegError


class Segmenter(litserve.LitAPI):
    """Gives the class of each pixel as a PNG of the picture's size."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def setup(self, device: str) -> None:
        self.predictor = crispseg.load(self.model, device=device)

    def decode_request(self, request: UploadFile) -> Image.Image:
        try:
            return ImageOps.exif_transpose(Image.open(request.file)).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise HTTPException(422, f"{request.filename}: not a picture that can be read ({error})") from error

    def predict(self, x: Image.Image) -> Any:
        try:
            return self.predictor(x).numpy()
        except CrispsegError as error:  # too large for the memory, or not of the one size that the file takes
            raise HTTPException(422, str(error)) from error

    def encode_response(self, output: np.ndarray) -> Response:
        file = io.BytesIO()
        Image.fromarray(output).save(file, "PNG")
        return Response(file.getvalue(), media_type="image/png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a file of crispseg export, or the folder of a run")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: every machine that reaches this one may ask")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    server = litserve.LitServer(Segmenter(arguments.model), accelerator=arguments.device, timeout=60)
    server.run(host=arguments.host, port=arguments.port, generate_client_file=False)


if __name__ == "__main__":
    main()
