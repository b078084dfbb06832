// Package steer — see doc comment (to be written by its owner).
package steer
