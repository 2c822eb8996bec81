"""Backbones, and their published weights."""
