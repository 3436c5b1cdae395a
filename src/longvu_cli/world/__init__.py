"""A synthetic world: drawn videos of any length, with questions and exact answers.

The bundled tiny model is trained in it, and the demo, the tests and the needle test are played in it. A seed and a
length decide everything: ``story.py`` writes what happens, ``questions.py`` asks about it, ``render.py`` draws it, and
``film.py`` makes an ordinary video file of it.
"""
