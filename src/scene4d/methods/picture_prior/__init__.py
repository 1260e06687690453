"""Training of our own prior: a U-Net that cleans noised pictures."""
