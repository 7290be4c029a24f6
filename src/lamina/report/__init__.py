"""What is shown of architectures: the words for their parts, tables and fact sheets. Imports no torch."""
