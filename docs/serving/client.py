"""Asks any server of the Open Inference Protocol about pictures, with Triton's client.

python client.py HOST:PORT DATASET LABELS PICTURE...
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.http

sys.path.insert(0, str(Path(__file__).parents[2]))
from components.data.pictures import PictureRule

url, dataset, labels, *pictures = sys.argv[1:]
client = tritonclient.http.InferenceServerClient(url)
shape = client.get_model_metadata(dataset)["inputs"][0]["shape"]
rule = PictureRule.of(dataset, tuple(map(int, shape[1:])))
images = np.stack([rule.read(Path(picture).read_bytes()) for picture in pictures])
given = tritonclient.http.InferInput("images", list(images.shape), "UINT8")
given.set_data_from_numpy(images)
wanted = [tritonclient.http.InferRequestedOutput("probabilities")]
answers = client.infer(dataset, [given], outputs=wanted, request_id="1").as_numpy("probabilities")
classes = Path(labels).read_text(encoding="utf-8").splitlines()
for picture, answer in zip(pictures, answers, strict=True):
    print(picture, classes[answer.argmax()], answer.max(), sep=",")
