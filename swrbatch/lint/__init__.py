"""The practices of the guide's chapter 8 as rules on Dockerfiles; each says what it finds and the way out."""
