"""Looking around a solution: directions, curves, planes, curvature, as measured on fixed images."""
