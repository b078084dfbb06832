//go:build !linux

package probe

func keepForTests() bool { return false }
