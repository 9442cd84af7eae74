"""Serves an exported champion over the Open Inference Protocol, with KServe's Python server and ONNX Runtime behind it.

python server.py REPOSITORY/DATASET PORT
"""

import sys
from pathlib import Path

import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer


class Champion(Model):
    """The newest version in a folder of the repository."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.name)
        version = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        self.session = onnxruntime.InferenceSession(folder / str(version) / "model.onnx")
        self.ready = True

    async def get_input_types(self) -> list[dict]:
        """Return what the protocol's metadata say of the images."""
        (images,) = self.session.get_inputs()
        return [{"name": images.name, "datatype": "UINT8", "shape": [-1, *images.shape[1:]]}]

    async def get_output_types(self) -> list[dict]:
        """Return what the protocol's metadata say of the probabilities."""
        (probabilities,) = self.session.get_outputs()
        return [{"name": probabilities.name, "datatype": "FP32", "shape": [-1, *probabilities.shape[1:]]}]

    def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002 - KServe's signature
        """Answer one request."""
        (probabilities,) = self.session.run(["probabilities"], {"images": payload.inputs[0].as_numpy()})
        output = InferOutput("probabilities", list(probabilities.shape), "FP32")
        output.set_data_from_numpy(probabilities, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1).start([Champion(Path(sys.argv[1]))])
