"""Files for people and other programs: contact sheets, confusion matrices, sidecars, folders."""
