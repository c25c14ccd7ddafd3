"""What generation keeps of the text it has read: keys and values, layer by layer."""
