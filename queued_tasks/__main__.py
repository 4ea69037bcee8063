"""`python -m queued_tasks` is the command `queued-tasks`."""

from queued_tasks.integrations.cli.main import main

if __name__ == "__main__":
    main()
