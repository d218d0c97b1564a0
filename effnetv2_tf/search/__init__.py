"""Architecture search: spaces, rewards, searchers, and the evaluation of what they propose."""
