"""From people's votes to the settings of a simulated crowd, and back: does the crowd vote as the people did?"""
