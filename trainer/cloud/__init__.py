"""The user's side of Vertex AI: jobs, tuning, endpoints.

Nothing that trains imports it.
"""
