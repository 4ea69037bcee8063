select queued_tasks.sweep_tokens()
