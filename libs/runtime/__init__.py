"""Process plumbing shared by every service: configuration, errors, calls, database and telemetry. No domain noun."""
