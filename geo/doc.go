// Package geo — see doc comment (to be written by its owner).
package geo
