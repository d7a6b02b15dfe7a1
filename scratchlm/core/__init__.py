"""What every other folder uses: errors, protocols, configuration, files, random seeds, devices."""
