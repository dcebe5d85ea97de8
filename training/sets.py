"""The sets of pictures, and in how many views each is seen."""

CAPTIONED = ("flickr8k-train", "captions-train")
VIEWS = {
    "flickr8k-train": 4,
    "captions-train": 4,
    "classes-train": 3,
    "imagenet-sample": 2,
    "coco-unlabelled": 1,
}
TURNED = "turned"  # photos with captions in other hues, TURNS of each at most
TURNS = 2
DRAWINGS = "drawings"  # in one view, on white
