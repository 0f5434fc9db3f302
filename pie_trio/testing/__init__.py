"""The simulation harness: the whole product on a virtual clock, with faults, from one seed.

    from pie_trio.testing.simulation import Simulation
    outcome = Simulation(7, Faults.parse("worker,kill"), "sharing").run()

scheduler   who runs next           faults      what goes wrong         knobs      tightened limits
sim_worker  workers                 sim_net     connections             guests     scripted programs
scenarios   what users do           world       what a scenario gets    workshop   what runs share
invariants  after every step        oracles     at the end              timeline   events of its own
simulation  one run                 swarm       many                    minimise   a smaller failing one

Production never imports this package. `inline_worker` is the simpler worker of plain tests.
"""
