"""Explains codes and error texts: symptom, cause, way out, and the section of the guide. Pure: texts in, entries out."""
