"""Structure from motion on photos and videos, with a diagnosis at the end."""

from scene4d.data.process.depth_model import DepthModelOptions
from scene4d.data.process.diagnosis import CameraSpread, Diagnosis, LeftOut
from scene4d.data.process.pipeline import process_images, process_video
from scene4d.data.process.relief import ReliefOptions
from scene4d.data.process.sfm import SfmOptions
from scene4d.data.process.video import VideoOptions

__all__ = [
    "CameraSpread",
    "DepthModelOptions",
    "Diagnosis",
    "LeftOut",
    "ReliefOptions",
    "SfmOptions",
    "VideoOptions",
    "process_images",
    "process_video",
]
