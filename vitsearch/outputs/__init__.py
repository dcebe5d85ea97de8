"""What is written for people and other programs: contact sheets, confusion matrices, XMP sidecars,
sorted folders.
"""
