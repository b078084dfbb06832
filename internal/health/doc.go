// Package health — see doc comment (to be written by its owner).
package health
