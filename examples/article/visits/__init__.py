"""The application: it knows its visitors again."""
