"""Paths under /api/auth/."""

from django.urls import path

from services.auth.api import views

urlpatterns = [
    path("register", views.RegisterView.as_view()),
    path("login", views.LoginView.as_view()),
    path("refresh", views.RefreshView.as_view()),
    path("logout", views.LogoutView.as_view()),
    path("me", views.MeView.as_view()),
    path("jwks.json", views.JwksView.as_view()),
]
