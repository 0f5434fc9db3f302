"""What tests of pie_trio and of inferlets are made from: workers and worlds that can be scripted.

Production never imports this package.
"""
