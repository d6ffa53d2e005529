"""What two processes must agree on: config, wire protocol, errors, model packages, logging."""
