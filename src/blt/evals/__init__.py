"""What models are measured by belongs here: tasks, their texts and noises, and the way into
lm-evaluation-harness; nothing that trains.
"""
