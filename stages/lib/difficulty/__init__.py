"""Ask the untrained student each question several times; the answers go to the store of received answers.

student = Loaded(…)                         # in this process (loaded.py), or Served(…), on a server (served.py)
calls = Calls(student.settings, system, system_in_user_turn=False, samples=4)
student.ask(calls.requests(questions), store)
pass_rate(question, calls.answers(question, store))    # PassRate(solved=1, unsure=0, samples=4)
"""
