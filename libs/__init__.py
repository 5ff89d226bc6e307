"""What two services share and no library offers."""
