"""Starts the parts of fngw on one machine, keeps them running, and stops them in order: ``fngw up``.

``up``        the story: prepare, start, wait until healthy, stop in order
``settings``  the ``FNGW_*`` variables of this room
``datadir``   makes the data directory fit for use; its secrets
``lock``      one supervisor per data directory, and who holds it
``takeover``  takes the lock, also after an fngw that was killed
``sockets``   the listening sockets, bound once and inherited by the gateway workers
``engine``    which engine is used, and whether it has what it needs
``embedded``  the embedded Redis: its binary, its configuration, its URL
``diagnosis`` pure: what a Redis that would not start was complaining about
``redis``     Redis as the parts meet it: started here or given, and answering
``syncing``   has what the embedded Redis wrote on the disk, every second
``parts``     pure: the processes to run, as data
``ladder``    pure: how long to wait before the next try
``child``     one child process that cannot outlive this one
``nursery``   a process of its own: imports what the parts import, and forks them
``forks``     has the nursery fork, or starts programs where that cannot be
``logs``      the parts' log files: last lines, bounded size
``crew``      keeps parts running, restarts what dies, stops what is told to
``space``     sees when the disk is full
``stops``     what signals ask for
``probe``     asks a gateway whether it is healthy
``say``       what a person is told
``detach``    ``fngw up --detach``
``down``      ``fngw down``
"""
