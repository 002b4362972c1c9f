//! Damage by chance, from seeds.
