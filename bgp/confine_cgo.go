//go:build cgo

package bgp

const withCgo = true
