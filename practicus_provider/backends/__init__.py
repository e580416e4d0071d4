"""Where replicas run. A backend knows no framework by name."""
