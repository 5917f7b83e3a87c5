//! Query parameters, decoded once into typed requests.
