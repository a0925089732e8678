"""Turns a build request into something that replicas run from: an image, or a folder and an interpreter.

A build is an ordered list of layers: base, environment, code. Environments are not built yet; their layer would
stand between the other two.

``jobs``           what the queue calls; every outcome becomes a ``BuildResult``
``flight``         one build in Redis: who does it, what it says, how it ended
``plan``           pure: which layers, and under which key the outcome is known
``bundle``         a source archive, checked
``code_layer``     the image layer of a bundle
``image_archive``  pure: an image's configuration, and the archive that adds one layer to an engine
``images``         the Docker engine
``local``          the same for local processes: unpacked sources and an interpreter
``settings``       the builder's ``FNGW_*`` variables
``health``         whether a builder here beats, for a container's health check
"""
