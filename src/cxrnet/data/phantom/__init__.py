"""Synthetic chest radiographs, drawn by projecting a simple thorax: patients, poses, signs of disease, faults."""
