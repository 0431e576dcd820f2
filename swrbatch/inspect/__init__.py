"""What is inside images: layers merged into a tree, waste and efficiency."""
