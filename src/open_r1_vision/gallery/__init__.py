# SPDX-License-Identifier: Apache-2.0
"""A run's rollouts and training curves as one HTML file that opens from disk."""

from open_r1_vision.gallery.page import Gallery, write_gallery

__all__ = ["Gallery", "write_gallery"]
