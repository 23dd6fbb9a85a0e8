"""What holds for every test."""

from hypothesis import settings

settings.register_profile("vidmill", deadline=None)  # a busy machine is not a failing test
settings.load_profile("vidmill")
