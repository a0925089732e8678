"""Turns a build request into something that replicas run from: an image, or a folder and an interpreter.

A build is an ordered list of layers: base, environment, runtime and code.

``jobs``           what the queue calls; every outcome becomes a ``BuildResult``
``flight``         one build in Redis: who does it, what it says, how it ended
``plan``           pure: which layers, and under which key the outcome is known
``bundle``         a source archive, checked
``environments``   an environment, whole: locked once, built once; ``environment`` has the steps
``code_layer``     the image layer of a bundle; ``tree_layer`` an environment's, ``runtime_layer`` the runtime's
``image_archive``  pure: an image's configuration, and the archive that adds layers to an engine
``image_build``    one image from all of these
``images``         the Docker engine
``registry``       the registry that keeps copies
``local``          the same for local processes: unpacked sources and an interpreter
``pool``           as many builds at once as are asked for
``upkeep``         what the caches take, and emptying them
``settings``       the builder's ``FNGW_*`` variables
``health``         whether a builder here beats, for a container's health check
"""
