"""What `queued-tasks demo` shows: an application, requests to it, and a screen that says what is going on."""
