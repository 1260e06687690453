"""Motion of splats: splines of rigid poses, and Gaussians that follow several nodes."""
