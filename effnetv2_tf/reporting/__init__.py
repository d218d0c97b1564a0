"""Pictures: curves, augmentation sheets, confusion matrices."""
