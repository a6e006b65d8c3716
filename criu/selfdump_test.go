package criu_test

func helpers() {}
