"""Files of every kind are read strictly and written whole or not at all here; what a model, a batch
or a run is, is not known here.
"""
