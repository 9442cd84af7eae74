"""A space becomes a finished study."""
