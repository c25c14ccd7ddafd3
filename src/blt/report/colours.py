"""Colours of lines and bars in figures."""

COLOURS = ("#0b6e99", "#d1495b", "#3a7d44", "#8d5a97", "#c77d0a", "#4a4e69", "#00798c", "#9a031e")
