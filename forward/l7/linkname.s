// This file is empty. It lets h3conn.go declare a function whose body is in another package.
